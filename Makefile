# make check = what must pass before a commit; make ci = what the gate runs; make speed = benchmarks, measured anew
# make lesson N=08 = run notebooks in place (SLOW=--slow: their slow cells, too); make pictures = those at the top of the lessons
# make alone = every lesson and solution as a reader has it: alone, without data, network or our tools
export:
	python tools/book.py && nbdev_export && python tools/book.py && python tools/network.py
check: export
	nbdev_test --timing
	pytest -q -n 2 --dist loadfile
	nbdev_clean
	python tools/book.py --check
	python tools/network.py --check
	python tools/style.py
	ruff check ssd_tutorial tests tools benchmarks nbs setup.py
	ruff format --check tests tools benchmarks setup.py
lesson:
	python tools/run.py $(N) $(SLOW) && nbdev_clean
pictures:
	python tools/run.py --pictures
format:
	ruff format tests tools benchmarks setup.py
quick:
	pytest -q -n 2 --dist loadfile -m 'not slow'
alone:
	python tools/alone.py --all
ci:
	bash .ci/run
speed:
	python benchmarks/run.py
# make quick = the tests that take seconds
# make format = lay out tests, tools and benchmarks
.PHONY: format export check quick lesson pictures alone ci speed
