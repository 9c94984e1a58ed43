# Everyday verbs. `make demo` and `make test` are the two that a newcomer needs.
PYTHON ?= python3
MIVLA := .venv/bin/mivla
RUN := .venv/bin/mivla-env

.PHONY: help setup demo test lint bench train-demo evaluate lerobot-env clean results \
	results-tasks results-ood results-baselines results-ablation results-robotwin

help:
	@echo 'make demo        watch a simulated PiPER press the bell, five episodes'
	@echo 'make demo HOLD=1 the same, and leave it running'
	@echo 'make test        all tests'
	@echo 'make lint        ruff and mypy'
	@echo 'make bench       all benchmarks; results go to benchmarks/results/'
	@echo 'make train-demo  record 30 demonstrations, train, evaluate: makes the shipped checkpoint'
	@echo 'make results     every table of docs/results.md that needs no GPU (hours); or one: results-tasks,'
	@echo '                 results-ood, results-baselines, results-ablation, results-robotwin'
	@echo 'make lerobot-env an environment of its own for LeRobot policies (several GB)'
	@echo 'make setup       what all of these call first'

setup:
	@$(PYTHON) scripts/setup.py

demo: setup
	@$(MIVLA) demo $(if $(HOLD),--hold)

test: setup
	@$(RUN) .venv/bin/python -m pytest

lint: setup
	@$(RUN) .venv/bin/ruff check .
	@$(RUN) .venv/bin/mypy

bench: setup
	@$(MIVLA) bench all

train-demo: setup
	@$(MIVLA) train-demo

evaluate: setup
	@$(MIVLA) evaluate --task click_bell --episodes 100

# The tables of docs/results.md, one target each. What was recorded, trained or measured is not done
# again; a training that was interrupted goes on.
RESULTS := runs/results
MEASURE := $(MIVLA) evaluate --episodes 100 --realtime 0
# Of the bottle's scenes the first were looked at while the task was made.
BOTTLE := $(MEASURE) --task bottle_on_pad --first-seed 200100 --out $(RESULTS)/evaluate/bottle_on_pad
LEARN = $(MIVLA) finetune --seed 1 --threads 1 --out $(@D) $(if $(wildcard $(@D).training),--resume)
LEARN_BOTTLE = $(LEARN) $(RESULTS)/bags/bottle_on_pad --recipe tiny_varied

results: results-tasks results-ood results-baselines results-ablation

.PRECIOUS: $(RESULTS)/bags/%.done $(RESULTS)/hands/%.done
$(RESULTS)/bags/%.done: | setup
	@$(MIVLA) demonstrate --task $* --out $(@:.done=) && touch $@

$(RESULTS)/hands/%.done: | setup
	@$(MIVLA) generate-hands --task $* --count 100 --out $(@:.done=) && touch $@

$(RESULTS)/trunk/config.json: $(RESULTS)/bags/bottle_on_pad.done $(RESULTS)/hands/bottle_on_pad.done
	@$(MIVLA) pretrain --hands $(RESULTS)/hands/bottle_on_pad --robots $(RESULTS)/bags/bottle_on_pad \
		--seed 1 --threads 1 --steps 3000 --out $(@D) $(if $(wildcard $(@D).training),--resume)

$(RESULTS)/bottle_on_pad/config.json: $(RESULTS)/trunk/config.json
	@$(LEARN_BOTTLE) --preset tiny --from $(RESULTS)/trunk --steps 5000

# H-RDT's geometry without mutual imitation, at the size of tiny: as many steps in all.
$(RESULTS)/scratch/config.json: $(RESULTS)/bags/bottle_on_pad.done
	@$(LEARN_BOTTLE) --preset tiny

# The same with the recipe that suits it better.
$(RESULTS)/scratch_plain/config.json: $(RESULTS)/bags/bottle_on_pad.done
	@$(LEARN) $(RESULTS)/bags/bottle_on_pad --preset tiny --recipe tiny --steps 3600

$(RESULTS)/act/config.json $(RESULTS)/bc/config.json: $(RESULTS)/bags/bottle_on_pad.done
	@$(LEARN_BOTTLE) --policy $(notdir $(@D))

$(RESULTS)/umbrella_rack/config.json: $(RESULTS)/bags/umbrella_rack.done
	@$(LEARN) $(RESULTS)/bags/umbrella_rack --robot arx5_x5 --recipe tiny_varied

results-tasks: setup $(RESULTS)/bottle_on_pad/config.json $(RESULTS)/umbrella_rack/config.json
	@$(MEASURE) --task click_bell --level easy,hard
	@$(BOTTLE) --policy $(RESULTS)/bottle_on_pad --level easy,hard
	@$(MEASURE) --task umbrella_rack --policy $(RESULTS)/umbrella_rack --level easy,hard

results-ood: setup $(RESULTS)/bottle_on_pad/config.json
	@$(MEASURE) --task click_bell --level novel_object,unseen_pose,distractor --controls 0
	@$(BOTTLE) --policy $(RESULTS)/bottle_on_pad --controls 0 \
		--level novel_object,unseen_pose,distractor
	@$(MIVLA) bench novelty

results-baselines: setup $(foreach name,bottle_on_pad scratch scratch_plain act bc,$(RESULTS)/$(name)/config.json)
	@for name in scratch scratch_plain act bc; do \
		$(BOTTLE) --level easy,hard --controls 0 --policy $(RESULTS)/bottle_on_pad \
			--against $(RESULTS)/$$name || exit 1; \
	done

results-ablation: $(RESULTS)/hands/click_bell.done
	@for count in 10 20 30; do \
		$(MIVLA) ablation --hands $(RESULTS)/hands/click_bell --demonstrations $$count \
			--steps 900 --pretraining-steps 900 --out $(RESULTS)/ablation-$$count || exit 1; \
	done

# make results-robotwin ROBOTWIN=~/RoboTwin POLICY=runs/policy ROBOTWIN_PYTHON=~/env/bin/python
results-robotwin: setup
	@$(MIVLA) robotwin run $(ROBOTWIN) --policy $(POLICY) --out $(RESULTS)/robotwin \
		--python $(or $(ROBOTWIN_PYTHON),python)

lerobot-env:
	@$(PYTHON) scripts/lerobot_env.py

clean:
	rm -rf build install log .pytest_cache .mypy_cache .ruff_cache
