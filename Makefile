# make check = what must pass before a commit; make ci = what the gate runs; make speed = benchmarks, measured anew
export:
	nbdev_export && python tools/book.py
check: export
	nbdev_test --timing
	pytest -q
	nbdev_clean
	python tools/book.py --check
	python tools/style.py
	ruff check --select F,B015 ssd_tutorial tests tools benchmarks nbs
ci:
	bash .ci/run
speed:
	python benchmarks/run.py
.PHONY: export check ci speed
