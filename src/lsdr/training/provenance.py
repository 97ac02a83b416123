"""From a step in trouble to the layer and the examples behind it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from lsdr.training.diagnose import diagnose
from lsdr.training.guard import Action, Trouble
from lsdr.training.stepper import Stepper
from lsdr.training.turn import Turn


def investigate(
    stepper: Stepper,
    step: int,
    examples: Mapping[str, Tensor],
    previous: tuple[int, Mapping[str, Tensor]] | None,
    trouble: Trouble,
    action: Action,
    turn: Turn,
) -> dict[str, Any]:
    """Replay a step in trouble, micro-batch by micro-batch, until one shows where it came from.

    The weights have not moved since, and every random number of a step can be drawn again, so the replay is exact.

    Args:
        stepper: The run.
        step: The step in trouble.
        examples: Its examples on this rank.
        previous: The last healthy step and its examples, to compare a spike with; None when there was none.
        trouble: What the guard saw.
        action: What will be done about it.
        turn: The player's move that was in trouble.

    Returns:
        An entry for events.jsonl.
    """
    # On several ranks the penalty talks to the others, who may replay another number of passes: leave it out there.
    alone = stepper.accelerator.num_processes == 1
    reference: Callable[[], Tensor] | None = None
    if previous is not None and trouble.kind == "spike":  # what is not finite needs no comparison
        earlier, chunk = previous[0], stepper.chunks(*previous)[0]
        reference = partial(stepper.replay, earlier, chunk, penalized=alone, turn=turn)
    event: dict[str, Any] = {}
    with stepper.penalty.aside():
        for number, chunk in enumerate(stepper.chunks(step, examples)):
            finding = diagnose(
                stepper.plain,
                partial(stepper.replay, step, chunk, number, penalized=alone, turn=turn),
                reference=reference,
                inputs={name: value for name, value in chunk.items() if value.is_floating_point()},
                average=stepper.average.model,
            )
            members = [int(chunk["index"][position]) for position in finding.indices]
            names = [stepper.task.name(index) for index in members]
            event = finding.to_event(step, trouble, action, names) | {"indices": members}
            if finding.module:
                break
    everyone = len(event["names"]) == len(chunk["index"]) and finding.direction != "input"
    if event["names"] and not everyone:  # if all are affected, it is not the examples
        event["message"] += f" ({', '.join(event['names'][:3])}{', ...' if len(event['names']) > 3 else ''})"
    event["batch"] = examples["index"].tolist()
    if alone:
        return event
    events: list[dict[str, Any]] = gather_object([event])  # the culprit may be in another rank's share
    batch = [index for each in events for index in each["batch"]]
    return {**next((each for each in events if each["module"]), event), "batch": batch}
