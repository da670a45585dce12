# One command for each thing to do with the pipeline; `make` alone lists them.
#
# The lines with two hashes are the help text. A knob given on the command line (make run MODELS=svm) reaches the
# launcher through MAKEFLAGS, from which it takes them whatever they contain; see launcher/knobs.py.

SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help run backtest up airflow down images check test test-faults test-fuzz clean \
	server server-down server-logs server-upgrade server-backup server-restore server-user worker test-server
.SILENT:

override LAUNCHER := launcher/environment.sh
override IN_VENV := .venv/bin/python -m launcher

## Commands
##   make run      Set everything up, then run the pipeline once and show the predictions
##   make backtest Run past weeks as they would have been then, show what each model would have scored
##   make up       Start Airflow with its web page and keep it running
##   make airflow  Airflow's own command line, for the Airflow of `make up`: make airflow ARGS="dags list"
##   make down     Stop everything that was started from this checkout
##   make images   Build the model images whose code changed
##   make server   Set up and start a server for a team by docker-compose (docs/operations.md)
##   make server-down     Stop the server; what it keeps stays
##   make server-logs     Show what its services say
##   make server-upgrade  Back it up and put the present code in the place of what runs; runs go on
##   make server-backup   Back up its database, secrets and results
##   make server-restore  Put it back as a backup has it: FROM=backups/…
##   make server-user     Make a user of it: NAME=anna ROLE=viewer
##   make worker   Let this machine work for the server of another: BROKER=10.0.0.5
##   make check    Look at the code: ruff, its formatter, mypy
##   make test     Set everything up, then `make check` and all the tests
##   make test-faults  Kill what can be killed at every stage of a run; writes docs/reliability.md
##   make test-fuzz  Read thousands of broken zips and tables; `make test` reads some of them
##   make test-server  The long tests of the server
##   make clean    Remove Airflow's home and the caches; with ALL=1 also data/, .venv and the images
##   make help     This text

run:
	$(LAUNCHER) local run --from-make

backtest:
	$(LAUNCHER) local backtest --from-make

up:
	$(LAUNCHER) local up --from-make

airflow:
	$(LAUNCHER) local airflow --from-make

down:
	if [ -x .venv/bin/python ]; then $(IN_VENV) down --from-make; else echo "Nothing was ever started here."; fi

images:
	$(LAUNCHER) local images --from-make

server:
	$(LAUNCHER) local server --from-make

server-down server-logs server-upgrade server-backup server-restore server-user worker:
	$(LAUNCHER) local $@ --from-make

check:
	$(LAUNCHER) dev check --from-make

test:
	$(LAUNCHER) dev test --from-make

test-faults:
	$(LAUNCHER) dev test-faults --from-make

test-fuzz:
	$(LAUNCHER) dev test-fuzz --from-make

test-server:
	$(LAUNCHER) dev test-server --from-make

clean:
	if [ -x .venv/bin/python ]; then $(IN_VENV) clean --from-make; else echo "Nothing was ever made here."; fi

help:
	sed -n 's/^## \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

##
## Knobs of `make run`, such as: make run MODELS=svm,xgboost FEATURE_SET=medium
##   SOURCE           practice (a generated season: no account, no network), numerai, or archive
##   ARCHIVE          path or https address of a zip of the classic layout; implies SOURCE=archive
##   MODELS           the models to run, by comma; all of them if not given
##   ROUND            the round's number; the current one if not given
##   VERSION          dataset version, such as v5.3, or latest
##   FEATURE_SET      small, medium, all
##   TARGET           the target to learn, such as target_ender_20; the dataset's default if not given
##   WALK_FORWARD     0: fail for a past round whose live data is gone, instead of predicting what is known by now
##   EMBARGO          eras left out before the week of such a run; by the target's name if not given
##   EVERY_NTH_ERA    train on every n-th era only
##   AUTOML_MINUTES   search time of each AutoML model, 1 to 4320 (1 for a practice round, else 10)
##   SEED             the seed of every random choice
##   FORCE            1: compute everything again, also what is up to date
##   SUBMIT           1: hand the predictions in, to the practice season or to Numerai (README: Submitting)
##
## Knobs of `make backtest`, besides those of `make run` (but ROUND and ARCHIVE):
##   WEEKS            how many weeks (8), ending with the last whose targets are known: without TARGET 14 weeks ago
##   FROM             or the first day on which a round may have opened, such as FROM=2026-06-01
##   TO               and the last one
##   AT_ONCE          weeks that may run at the same time (2)
##
## Knobs of the launcher
##   PORT             port of Airflow's web page (8080, or the next free one)
##   NO_INSTALL       1: never install anything with apt-get; say what is missing instead
##   ARGS             make test and test-fuzz: arguments for pytest, such as ARGS="-k knobs"; make airflow: what airflow should do
##   SOAK             make test-faults: so many kills at random besides (0), such as SOAK=200
##   ALL              make clean: 1 removes data/, .venv, .uv and the model images as well
##
## Knobs of the server
##   any setting      make server: what .env.example names; they go into .env when there is none
##   SERVICE          make server-logs: only this one
##   TO               make server-backup: the folder in which the backup's folder is made (backups/)
##   DATA             make server-backup: 1 for all of the data, also what can be had again
##   FROM             make server-restore: the folder of a backup
##   NAME             make server-user: the new user's name; make worker: the worker's, else the machine's
##   ROLE             make server-user: viewer (the default), user, op or admin
##   BROKER           make worker: address of the server's machine
##   QUEUES           make worker: the queues it takes tasks from (default,cpu,big-memory)
##
## Settings for every run are environment variables NUMERAI_*: see plugins/numerai_pipeline/settings.py.
