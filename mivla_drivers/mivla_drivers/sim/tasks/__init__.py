"""
The simulated tasks, by name.

The one place to add a task: a module with a ``TASK``, and its entry here. Its expert is in
``mivla_teleop.core.experts``.
"""

from __future__ import annotations

from mivla_drivers.sim.arm_model import SimError
from mivla_drivers.sim.tasks import bottle_on_pad, click_bell, gather_objects, umbrella_rack
from mivla_drivers.sim.tasks.base import LEVELS, Judge, Place, Scenario, Task, TaskState

__all__ = ['Judge', 'LEVELS', 'Place', 'Scenario', 'TASKS', 'Task', 'TaskState', 'task_of']

TASKS: dict[str, Task] = {module.TASK.name: module.TASK
                          for module in (click_bell, bottle_on_pad, umbrella_rack,
                                         gather_objects)}


def task_of(name: str) -> Task:
    """
    Return a task.

    :raises SimError: there is none of this name.
    """
    if name not in TASKS:
        raise SimError(f'unknown task {name!r}; known: {", ".join(sorted(TASKS))}')
    return TASKS[name]
