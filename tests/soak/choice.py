# SPDX-License-Identifier: GPL-2.0-only
"""Which operation is next."""

import activations
import merging
import module
import tables
import volumes
import writing
from model import OVERFLOW, VALID

MOST = 4  # snapshots at a time

# operation, weight, what it needs
OPERATIONS = [
    (writing.write, 30, lambda world: world.snapshots),
    (writing.read_while_writing, 15, lambda world: world.alive()),
    (writing.compare, 5, lambda world: world.alive()),
    (writing.overflow, 4, lambda world: world.alive()),
    (volumes.create, 15, lambda world: len(world.snapshots) < MOST),
    (volumes.drop, 6, lambda world: world.snapshots),
    (volumes.extend, 5, lambda world: world.alive(VALID, OVERFLOW)),
    (volumes.audit, 2, lambda world: world.snapshots),
    (tables.reload, 10, lambda world: world.snapshots),
    (tables.suspend, 8, lambda world: world.snapshots),
    (merging.at_once, 3, lambda world: world.settled()),
    (merging.with_interruptions, 3, lambda world: world.settled()),
    (activations.reactivate, 6, lambda world: world.snapshots),
    (activations.attempt_to_unload, 1, lambda world: any(s.store == "rust" for s in world.snapshots)),
    (activations.beside_c, 10, lambda world: world.store == "c" and module.CORE == "c"),
]


def choose(world):
    """One of the operations that are possible now."""
    # what there has not been yet comes soon
    possible = [(operation, weight if world.counts[operation] else 10 * weight)
                for operation, weight, needs in OPERATIONS if needs(world)]
    operations, weights = zip(*possible)
    (chosen,) = world.rng.choices(operations, weights)
    world.counts[chosen] += 1
    return chosen
