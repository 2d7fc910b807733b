"""A baseline that works as the published pipeline does, written from its description.

Full forward pass to the logits, right-padded unsorted batches of 32 documents, activations to
float32 on the host; calibration by scipy's pdist and numpy's percentile per batch; a dense float32
product with every exemplar; a Python loop over uncovered rows; statistics, heaps, and reservoirs
row by row in Python. Facts from arXiv 2605.14347 and its pipeline's description; no line of it.
"""

from __future__ import annotations

import heapq
import random

import numpy as np
import torch
from scipy.spatial.distance import pdist


class PublishedPipeline:
    """One site, one percentile."""

    def __init__(self, model, layer, percentile, *, batch=32, context_length=128):
        self.model, self.percentile = model, percentile
        self.layer, self.batch, self.context_length = layer, batch, context_length

    def activations(self, documents):
        """(rows, texts, positions) of each batch of documents."""
        module, tokenizer = self.model.module, self.model.tokenizer
        captured = {}

        def hook(_module, _inputs, output):
            captured["x"] = output if torch.is_tensor(output) else output[0]

        handle = self.model.layers[self.layer].register_forward_hook(hook)
        try:
            for start in range(0, len(documents), self.batch):
                texts = documents[start : start + self.batch]
                ids = [tokenizer(t).input_ids[: self.context_length] for t in texts]
                width = max(map(len, ids))
                tokens = torch.zeros((len(ids), width), dtype=torch.long)
                attention = torch.zeros_like(tokens)
                for i, row in enumerate(ids):
                    tokens[i, : len(row)] = torch.tensor(row)
                    attention[i, : len(row)] = 1
                with torch.inference_mode():
                    module(input_ids=tokens, attention_mask=attention)
                x = captured["x"].float().cpu().numpy()
                rows, where = [], []
                for i, row in enumerate(ids):
                    for position in range(1, len(row)):
                        rows.append(x[i, position])
                        where.append((texts[i], position))
                yield np.array(rows), where
        finally:
            handle.remove()

    def calibrate(self, documents, n_rows):
        """Keep batches until there are n_rows; center; mean of the batches' percentiles."""
        batches, total = [], 0
        for rows, _ in self.activations(documents):
            batches.append(rows)
            total += len(rows)
            if total >= n_rows:
                break
        everything = np.concatenate(batches)
        unit = everything / (np.linalg.norm(everything, axis=1, keepdims=True) + 1e-12)
        direction = unit.mean(axis=0)
        direction /= np.linalg.norm(direction)
        self.center = direction * float(everything.mean(axis=0) @ direction)
        self.threshold = float(
            np.mean(
                [np.percentile(pdist(b - self.center, "cosine"), self.percentile) for b in batches]
            )
        )

    def discover(self, documents):
        """Cluster all documents; the number of regions."""
        width = len(self.center)
        exemplars = np.empty((0, width), np.float32)
        self.regions = []
        n = 0
        for rows, where in self.activations(documents):
            u = rows - self.center
            u = (u / (np.linalg.norm(u, axis=1, keepdims=True) + 1e-12)).astype(np.float32)
            assigned = np.full(len(u), -1)
            distance = np.zeros(len(u), np.float32)
            first = 0
            if not len(exemplars):
                exemplars = u[:1].copy()
                self.regions.append(_Region(width))
                assigned[0], first = 0, 1
            if first < len(u):
                similarity = u[first:] @ exemplars.T
                best = similarity.argmax(axis=1)
                d = np.clip(1 - similarity[np.arange(len(best)), best], 0, 2)
                for i in range(len(best)):
                    if d[i] <= self.threshold:
                        assigned[first + i], distance[first + i] = best[i], d[i]
            leaders = []
            for i in np.flatnonzero(assigned < 0):
                if leaders:
                    s = np.array(leaders) @ u[i]
                    j = int(s.argmax())
                    if s[j] >= 1 - self.threshold:
                        assigned[i] = len(exemplars) + j
                        distance[i] = 1 - s[j]
                        continue
                leaders.append(u[i])
                self.regions.append(_Region(width))
                assigned[i] = len(exemplars) + len(leaders) - 1
            if leaders:
                exemplars = np.concatenate([exemplars, np.array(leaders)])
            for region in np.unique(assigned):
                members = np.flatnonzero(assigned == region)
                self.regions[region].add(u[members], distance[members], n + members)
            for i in range(len(u)):
                self.regions[assigned[i]].remember(float(distance[i]), *where[i])
            n += len(u)
        self.n_rows = n
        return len(exemplars)


class _Region:
    def __init__(self, width):
        self.count = 0
        self.sum = np.zeros(width)
        self.distance_sum = self.distance_square_sum = 0.0
        self.rows, self.nearest, self.farthest, self.reservoir = [], [], [], []

    def add(self, directions, distances, rows):
        self.count += len(directions)
        self.sum += directions.sum(axis=0)
        self.distance_sum += float(distances.sum())
        self.distance_square_sum += float((distances**2).sum())
        for direction, row in zip(directions, rows, strict=True):
            self.rows.append(int(row))
            if len(self.reservoir) < 30:
                self.reservoir.append(direction.copy())
            elif random.random() < 30 / self.count:
                self.reservoir[random.randrange(30)] = direction.copy()

    def remember(self, distance, text, position):
        for heap, key in ((self.nearest, -distance), (self.farthest, distance)):
            if len(heap) < 10:
                heapq.heappush(heap, (key, text, position))
            else:
                heapq.heappushpop(heap, (key, text, position))
