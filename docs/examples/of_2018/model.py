import csv
import os

with open(os.environ["TESTING"]) as testing, open(os.environ["PREDICTING"], "w") as predicting:
    predicting.write("id,probability\n")
    for row in csv.DictReader(testing):
        predicting.write(f"{row['id']},{0.4 + 0.2 * float(row['feature1'])}\n")
