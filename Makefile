# make check = what must pass before a commit; make ci = what the gate runs; make speed = benchmarks, measured anew
# make lesson N=08 = run notebooks in place (SLOW=--slow: their slow cells, too); make pictures = those at the top of the lessons
# make alone = every lesson and solution as a reader has it: alone, without data, network or our tools
export:
	nbdev_export && python tools/book.py
check: export
	nbdev_test --timing
	pytest -q -n 2 --dist loadfile
	nbdev_clean
	python tools/book.py --check
	python tools/style.py
	ruff check --select F,B015 ssd_tutorial tests tools benchmarks nbs
lesson:
	python tools/run.py $(N) $(SLOW) && nbdev_clean
pictures:
	python tools/run.py --pictures
alone:
	python tools/alone.py --all
ci:
	bash .ci/run
speed:
	python benchmarks/run.py
.PHONY: export check lesson pictures alone ci speed
