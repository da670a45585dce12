# One command for each thing to do with the pipeline; `make` alone lists them.
#
# The lines with two hashes are the help text. Options of the command line (make run MODELS=svm) reach the launcher in
# MAKEFLAGS, without evaluation by a shell; see launcher/options.py, which also has their descriptions.

SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help run backtest up airflow down images check test test-faults test-fuzz clean \
	server server-down server-logs server-upgrade server-backup server-restore server-user worker test-server
.SILENT:

override LAUNCHER := launcher/environment.sh
override IN_VENV := .venv/bin/python -m launcher

## Commands
##   make run      Set everything up, run the pipeline once and show the predictions
##   make backtest Run past weeks on the data of their time, show each model's scores
##   make up       Start Airflow with its web page and keep it running
##   make airflow  Airflow's own command line, for the Airflow of `make up`: make airflow ARGS="dags list"
##   make down     Stop everything started from this checkout
##   make images   Build the model images whose code changed
##   make server   Set up and start a server for a team by docker-compose (docs/deployment/server.md)
##   make server-down     Stop the server; database, logs and data stay
##   make server-logs     Show the logs of its services
##   make server-upgrade  Back it up and upgrade it to the present code; runs continue
##   make server-backup   Back up its database, secrets and results
##   make server-restore  Restore it from a backup: FROM=backups/…
##   make server-user     Create a user: NAME=anna ROLE=viewer
##   make worker   Run tasks of another machine's server on this machine: BROKER=10.0.0.5
##   make check    Check the code: ruff, its formatter, mypy, the prose, the documentation
##   make test     Set everything up, then `make check` and all the tests
##   make test-faults  Kill each component at every stage of a run; writes docs/results/reliability.md
##   make test-fuzz  Read thousands of broken zips and tables; `make test` reads some of them
##   make test-server  The long tests of the server
##   make clean    Remove Airflow's home and the caches; with ALL=1 also data/, .venv and the images
##   make help     Show this text

run:
	$(LAUNCHER) local run --from-make

backtest:
	$(LAUNCHER) local backtest --from-make

up:
	$(LAUNCHER) local up --from-make

airflow:
	$(LAUNCHER) local airflow --from-make

down:
	if [ -x .venv/bin/python ]; then $(IN_VENV) down --from-make; else echo "No environment yet; nothing to stop."; fi

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
	if [ -x .venv/bin/python ]; then $(IN_VENV) clean --from-make; else echo "No environment yet; nothing to remove."; fi

help:
	sed -n 's/^## \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

##
## Options of `make run`, such as: make run MODELS=svm,xgboost FEATURE_SET=medium
##   SOURCE           practice (a simulated tournament: no account, no network), numerai, or archive
##   ARCHIVE          path or https address of a zip of the classic layout; implies SOURCE=archive
##   MODELS           the models to run (comma-separated); all of them if not given
##   ROUND            the round's number; the current one if not given
##   VERSION          dataset version, such as v5.3, or latest
##   FEATURE_SET      small, medium, all
##   TARGET           the target to learn, such as target_ender_20; the dataset's default if not given
##   TARGETS          further targets (comma-separated), of which models blend their fits, such as target_cyrusd_60
##   WALK_FORWARD     0: fail for a past round whose live data is gone; 1: predict its week from the data of that time
##   EMBARGO          eras excluded before the week of such a run; by the target's name if not given
##   REFIT_EVERY      weeks of such runs that share one fit (1)
##   EVERY_NTH_ERA    train on every n-th era only
##   FIT              auto, always a new fit, or never (auto)
##   AUTOML_MINUTES   search time of each AutoML model, 1 to 4320 (1 for a practice round, else 10)
##   SEED             the seed of every random choice
##   FORCE            1: compute everything again, also results that are up to date
##   SUBMIT           1: submit the predictions to Numerai or to the simulated tournament (docs/getting-started/submit.md)
##   REPLACE          1: replace other predictions that another run has submitted for the same round and model
##
## Options of `make backtest`, in addition to those of `make run` (except ROUND, ARCHIVE, WALK_FORWARD, SUBMIT and REPLACE):
##   WEEKS            number of weeks (8), up to the last whose targets are known (without TARGET: 14 weeks ago)
##   FROM             first day on which a round may have opened, such as FROM=2026-06-01
##   TO               last day on which a round may have opened
##   AT_ONCE          number of weeks that may run in parallel (2)
##
## Options of the launcher
##   CALENDAR         make run and make up: hours of the simulator's rounds, always-open or strict (Numerai's)
##   PORT             port of Airflow's web page (8080, or the next free one)
##   NO_INSTALL       1: never install anything with apt-get; report missing packages instead
##   ARGS             make test and test-fuzz: arguments of pytest, such as ARGS="-k options"; make airflow: of airflow
##   SOAK             make test-faults: number of additional random kills (0), such as SOAK=200
##   ALL              make clean: 1 also removes data/, .venv, .uv and the model images
##
## Options of the server
##   any setting      make server: a setting of .env.example, written to a new .env
##   SERVICE          make server-logs: only this one
##   TO               make server-backup: the folder of all backups (backups/)
##   DATA             make server-backup: 1 for all of the data, also files that can be downloaded or computed again
##   FROM             make server-restore: the folder of a backup
##   NAME             make server-user: name of the user; make worker: name of the worker (the machine's)
##   ROLE             make server-user: viewer (the default), user, op or admin
##   BROKER           make worker: address of the server's machine
##   QUEUES           make worker: the queues of its tasks (default,cpu,big-memory)
##
## Settings for every run are environment variables NUMERAI_*: see plugins/numerai_pipeline/core/settings.py.
