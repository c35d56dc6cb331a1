"""Learns from all loans in a folder which fail: logistic regression. Knows nothing of sealfs."""

import csv
import json
import math
import os
import sys

data, out = sys.argv[1], sys.argv[2]
rows = []
for name in sorted(os.listdir(data)):
    with open(os.path.join(data, name), newline="") as file:
        rows += [[float(value) for value in row] for row in csv.reader(file)]

weights = [0.0, 0.0, 0.0]
for epoch in range(200):
    loss = 0.0
    slope = [0.0, 0.0, 0.0]
    for income, debt, failed in rows:
        features = (1.0, income, debt)
        chance = 1 / (1 + math.exp(-sum(w * x for w, x in zip(weights, features, strict=True))))
        loss -= math.log(chance if failed else 1 - chance)
        slope = [s + (chance - failed) * x for s, x in zip(slope, features, strict=True)]
    weights = [w - 0.5 * s / len(rows) for w, s in zip(weights, slope, strict=True)]
    if epoch % 50 == 49:
        print(f"epoch {epoch + 1}: loss {loss / len(rows):.4f} on {len(rows)} loans")

with open(os.path.join(out, "model.json"), "w") as file:
    json.dump({"weights": weights, "loans": len(rows)}, file)
