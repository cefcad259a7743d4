# make check = what must pass before a commit; make ci = what the gate runs
export:
	nbdev_export && python tools/book.py
check: export
	nbdev_test --timing
	pytest -q
	nbdev_clean
	python tools/book.py --check
	python tools/style.py
	ruff check --select F,B015 ssd_tutorial tests tools nbs
ci:
	bash .ci/run
.PHONY: export check ci
