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
# Of the bottle's and the umbrella's scenes the first were looked at while the tasks were made.
UNSEEN := --first-seed 200100
BOTTLE := $(MEASURE) --task bottle_on_pad $(UNSEEN) --out $(RESULTS)/evaluate/bottle_on_pad
RACK := $(MEASURE) --episodes 50 --controls 20 --task umbrella_rack $(UNSEEN)
# Of the training: 2 where the folder's name ends so.
SEED = $(if $(filter %_2,$(@D)),2,1)
RESUME = --out $(@D) $(if $(wildcard $(@D).training),--resume)
LEARN = $(MIVLA) finetune --seed $(SEED) --threads 1 $(RESUME)
LEARN_BOTTLE = $(LEARN) $(RESULTS)/bags/bottle_on_pad
PRETRAIN = $(MIVLA) pretrain --seed $(SEED) --threads 1 --steps 3000 $(RESUME) \
	--hands $(RESULTS)/hands/$(1) --robots $(RESULTS)/bags/$(1)
# What ours is compared with: from the same bags, as many steps in all.
OTHERS := scratch act
# The same trainings with another seed.
SECOND := bottle_on_pad_2 scratch_2
# The same with other recipes.
VARIED := scratch_short bottle_varied scratch_varied act_varied bc_varied

results: results-tasks results-ood results-baselines results-ablation

.PRECIOUS: $(RESULTS)/bags/%.done $(RESULTS)/hands/%.done
$(RESULTS)/bags/%.done: | setup
	@$(MIVLA) demonstrate --task $* --out $(@:.done=) && touch $@

$(RESULTS)/hands/%.done: | setup
	@$(MIVLA) generate-hands --task $* --count 100 --out $(@:.done=) && touch $@

$(RESULTS)/trunk/config.json $(RESULTS)/trunk_2/config.json: $(RESULTS)/bags/bottle_on_pad.done $(RESULTS)/hands/bottle_on_pad.done
	@$(call PRETRAIN,bottle_on_pad)

$(RESULTS)/trunk_umbrella_rack/config.json: $(RESULTS)/bags/umbrella_rack.done $(RESULTS)/hands/umbrella_rack.done
	@$(call PRETRAIN,umbrella_rack) --robot arx5_x5

$(RESULTS)/bottle_on_pad/config.json: $(RESULTS)/trunk/config.json
	@$(LEARN_BOTTLE) --preset tiny --recipe tiny --from $(RESULTS)/trunk --steps 3600

$(RESULTS)/umbrella_rack/config.json: $(RESULTS)/trunk_umbrella_rack/config.json
	@$(LEARN) $(RESULTS)/bags/umbrella_rack --robot arx5_x5 --preset tiny --recipe tiny \
		--from $(RESULTS)/trunk_umbrella_rack --steps 3600

$(RESULTS)/bottle_on_pad_2/config.json: $(RESULTS)/trunk_2/config.json
	@$(LEARN_BOTTLE) --preset tiny --recipe tiny --from $(RESULTS)/trunk_2 --steps 3600

# H-RDT's geometry without mutual imitation, at the size of tiny.
$(RESULTS)/scratch/config.json $(RESULTS)/scratch_2/config.json: $(RESULTS)/bags/bottle_on_pad.done
	@$(LEARN_BOTTLE) --preset tiny --recipe tiny --steps 6600

$(RESULTS)/act/config.json: $(RESULTS)/bags/bottle_on_pad.done
	@$(LEARN_BOTTLE) --policy act --recipe tiny --steps 6600

$(RESULTS)/scratch_short/config.json: $(RESULTS)/bags/bottle_on_pad.done
	@$(LEARN_BOTTLE) --preset tiny --recipe tiny --steps 3600

$(RESULTS)/bottle_varied/config.json: $(RESULTS)/trunk/config.json
	@$(LEARN_BOTTLE) --preset tiny --recipe tiny_varied --from $(RESULTS)/trunk --steps 5000

$(RESULTS)/scratch_varied/config.json: $(RESULTS)/bags/bottle_on_pad.done
	@$(LEARN_BOTTLE) --preset tiny --recipe tiny_varied

$(RESULTS)/act_varied/config.json $(RESULTS)/bc_varied/config.json: $(RESULTS)/bags/bottle_on_pad.done
	@$(LEARN_BOTTLE) --policy $(patsubst %_varied,%,$(notdir $(@D))) --recipe tiny_varied

results-tasks: setup $(RESULTS)/bottle_on_pad/config.json $(RESULTS)/umbrella_rack/config.json
	@$(MEASURE) --task click_bell --level easy,hard
	@$(BOTTLE) --policy $(RESULTS)/bottle_on_pad --level easy,hard
	@$(RACK) --policy $(RESULTS)/umbrella_rack --level easy,hard
	@$(MIVLA) ablation --task gather_objects --arms scratch --demonstrations 30 --steps 4000 \
		--episodes 30 --out $(RESULTS)/gather

results-ood: setup $(RESULTS)/bottle_on_pad/config.json
	@$(MEASURE) --task click_bell --level novel_object,unseen_pose,distractor --controls 0
	@$(BOTTLE) --policy $(RESULTS)/bottle_on_pad --controls 0 \
		--level novel_object,unseen_pose,distractor
	@$(MIVLA) bench novelty

results-baselines: setup $(foreach name,bottle_on_pad $(OTHERS) $(VARIED) $(SECOND),$(RESULTS)/$(name)/config.json)
	@for name in $(OTHERS) $(VARIED); do \
		$(BOTTLE) --level easy,hard --controls 0 --policy $(RESULTS)/bottle_on_pad \
			--against $(RESULTS)/$$name || exit 1; \
	done
	@$(BOTTLE) --level easy,hard --controls 0 --policy $(RESULTS)/bottle_on_pad_2 \
		--against $(RESULTS)/scratch_2

results-ablation: $(RESULTS)/hands/click_bell.done
	@for count in 10 20 30; do \
		$(MIVLA) ablation --hands $(RESULTS)/hands/click_bell --demonstrations $$count \
			--steps 900 --pretraining-steps 900 --out $(RESULTS)/ablation-$$count || exit 1; \
	done
	@$(MIVLA) ablation --hands $(RESULTS)/hands/click_bell --demonstrations 10 --steps 900 \
		--pretraining-steps 900 --recipe tiny_dropout --arms scratch,human,h2r,both \
		--out $(RESULTS)/ablation-10-drop
	@for count in 30 100; do \
		$(MIVLA) ablation --task umbrella_rack --arms scratch --demonstrations $$count \
			--steps 6600 --episodes 50 --seed 1 --out $(RESULTS)/ablation-rack-$$count || exit 1; \
	done

# make results-robotwin ROBOTWIN=~/RoboTwin POLICY=runs/policy ROBOTWIN_PYTHON=~/env/bin/python
results-robotwin: setup
	@$(MIVLA) robotwin run $(ROBOTWIN) --policy $(POLICY) --out $(RESULTS)/robotwin \
		--python $(or $(ROBOTWIN_PYTHON),python)

lerobot-env:
	@$(PYTHON) scripts/lerobot_env.py

clean:
	rm -rf build install log .pytest_cache .mypy_cache .ruff_cache
