# SPDX-License-Identifier: GPL-2.0-only
"""Writing and reading, between two activations."""

import tables


def write(world):
    made = world.streams()
    world.note(f"write: {world.told(made)}")
    world.burst(made)


def read_while_writing(world):
    """What is not written itself has to be what it was all the time."""
    targets = [None, *world.alive()]
    made = world.streams(world.rng.sample(targets, world.rng.randint(1, len(targets))))
    written = {stream.target for stream in made}
    doomed = world.doomed(made)
    still = [target for target in targets if target not in written and target not in doomed]
    world.note(f"write: {world.told(made)}; read: {', '.join(map(world.named, still)) or 'nobody'}")
    world.burst(made, lambda: still and world.compare(*still))


def compare(world):
    world.note("compare all")
    world.compare()


def overflow(world):
    """One snapshot gets more than it has room for; the others and the origin get what comes with it."""
    rng = world.rng
    snapshot = rng.choice(world.alive())
    target = rng.choice([None, snapshot])
    if rng.random() < 0.5:
        tables.use_option(snapshot, "PO")
    missing = snapshot.room - snapshot.count + rng.choice([0, 1, 2, 9])
    world.note(f"overflow {snapshot} by {world.named(target)}: {missing} chunks")
    world.burst([world.scattered(snapshot, target, missing)])
