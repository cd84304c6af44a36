"""Rewards of DM Control tasks over batches of simulated states, and what the planner adds to find them.

``REWARDS`` are the suite's own, written for arrays: poses come from the joint angles, speeds from the model's sensors.
``SHAPING`` is the planner's alone: where the suite's reward is 0 nearly everywhere, it says which way is nearer. What
an episode is worth is always the environment's own reward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import mujoco
import numpy as np
from dm_control.suite import cheetah, finger, hopper, pendulum, walker
from dm_control.utils.rewards import tolerance


@dataclasses.dataclass(frozen=True)
class Simulated:
    """States after each of H steps of N plans.

    Attributes:
        model: the MuJoCo model, with what the episode's reset wrote to it.
        qpos, qvel: [N, H, nq] and [N, H, nv].
        control: what led to them, [N, H, nu].
        sensordata: of these states, [N, H, nsensordata].
        sound: bool [N], False where the simulation diverged.
    """

    model: mujoco.MjModel
    qpos: np.ndarray
    qvel: np.ndarray
    control: np.ndarray
    sensordata: np.ndarray
    sound: np.ndarray

    def joint(self, name: str) -> np.ndarray:
        """Position [N, H] of a joint with one degree of freedom."""
        return self.qpos[..., self.model.joint(name).qposadr[0]]

    def velocity(self, name: str) -> np.ndarray:
        """Velocity [N, H] of a joint with one degree of freedom."""
        return self.qvel[..., self.model.joint(name).dofadr[0]]

    def sensor(self, name: str) -> np.ndarray:
        """Values [N, H, size] of a sensor."""
        sensor = self.model.sensor(name)
        return self.sensordata[..., sensor.adr[0] : sensor.adr[0] + sensor.dim[0]]


Term = Callable[[Simulated], np.ndarray]
"""Gives one number for each state, [N, H]."""


def _small_control(s: Simulated) -> np.ndarray:
    return (4 + tolerance(s.control, margin=1, value_at_margin=0, sigmoid="quadratic").mean(-1)) / 5


# Cart-pole: cart position in m, pole angle 0 upright.


def _cartpole(s: Simulated) -> np.ndarray:
    upright = (1 + np.cos(s.joint("hinge_1"))) / 2
    centred = (1 + tolerance(s.joint("slider"), margin=2)) / 2
    slow = (1 + tolerance(s.velocity("hinge_1"), margin=5)) / 2
    return upright * _small_control(s) * slow * centred


def _cartpole_sparse(s: Simulated) -> np.ndarray:
    return tolerance(s.joint("slider"), (-0.25, 0.25)) * tolerance(np.cos(s.joint("hinge_1")), (0.995, 1))


def _cartpole_nearly(s: Simulated) -> np.ndarray:
    """The dense reward, and the middle of the rail."""
    return _cartpole(s) - 0.5 * np.square(s.joint("slider"))


# Pendulum: a mass of 1 kg on half a metre; its torque holds a fifth of its weight.


def _pendulum(s: Simulated) -> np.ndarray:
    return tolerance(np.cos(s.joint("hinge")), (pendulum._COSINE_BOUND, 1))


def _pendulum_energy(s: Simulated) -> np.ndarray:
    """1 where the mechanical energy is that of standing upright, 0 where it is that of hanging; and the height."""
    height = np.cos(s.joint("hinge"))
    energy = 0.5 * 0.25 * s.velocity("hinge") ** 2 + 9.81 * 0.5 * height
    return 1 - np.abs(energy - 9.81 * 0.5) / 9.81 + 0.5 * height


# Reacher and point mass: distances in m.


def _reacher_distance(s: Simulated) -> np.ndarray:
    shoulder, wrist = s.joint("shoulder"), s.joint("wrist")
    x = 0.12 * (np.cos(shoulder) + np.cos(shoulder + wrist))
    y = 0.12 * (np.sin(shoulder) + np.sin(shoulder + wrist))
    target = s.model.geom("target").pos
    return np.hypot(target[0] - x, target[1] - y)


def _reacher(s: Simulated) -> np.ndarray:
    return tolerance(_reacher_distance(s), (0, s.model.geom("target").size[0] + s.model.geom("finger").size[0]))


def _reacher_nearer(s: Simulated) -> np.ndarray:
    return -_reacher_distance(s) / 0.1 - 0.001 * np.square(s.qvel).sum(-1)


def _point_mass_distance(s: Simulated) -> np.ndarray:
    return np.hypot(s.joint("root_x"), s.joint("root_y"))


def _point_mass(s: Simulated) -> np.ndarray:
    size = s.model.geom("target").size[0]
    return tolerance(_point_mass_distance(s), (0, size), margin=size) * _small_control(s)


def _point_mass_nearer(s: Simulated) -> np.ndarray:
    return -_point_mass_distance(s) / 0.1


# Ball in cup: the ball hangs on a string of 0.3 m below a cup that moves.


def _ball_offset(s: Simulated) -> tuple[np.ndarray, np.ndarray]:
    """Ball minus the middle of the cup, in x and z."""
    return s.joint("ball_x") - s.joint("cup_x"), 0.2 + s.joint("ball_z") - (0.6 + s.joint("cup_z") - 0.05)


def _ball_in_cup(s: Simulated) -> np.ndarray:
    x, z = _ball_offset(s)
    free = s.model.site("target").size[[0, 2]] - s.model.geom("ball").size[0]
    return ((np.abs(x) < free[0]) & (np.abs(z) < free[1])).astype(float)


def _ball_over_cup(s: Simulated) -> np.ndarray:
    """Near is good once the ball is as high as the cup's rim; below it, higher is."""
    x, z = _ball_offset(s)
    above = z > 0.0
    return np.where(above, 1 - np.hypot(x, z) / 0.3, 2 * z)


# Walker, hopper, cheetah: bodies in a plane, heights in m, speeds in m/s of the centre of mass.


def _walker_stand(s: Simulated) -> np.ndarray:
    height, lowest = 1.3 + s.joint("rootz"), walker._STAND_HEIGHT
    standing = tolerance(height, (lowest, np.inf), margin=lowest / 2)
    return (3 * standing + (1 + np.cos(s.joint("rooty"))) / 2) / 4


def _walker_walk(s: Simulated) -> np.ndarray:
    forwards, speed = s.sensor("torso_subtreelinvel")[..., 0], walker._WALK_SPEED
    moving = tolerance(forwards, (speed, np.inf), margin=speed / 2, value_at_margin=0.5, sigmoid="linear")
    return _walker_stand(s) * (5 * moving + 1) / 6


def _hopper_height(s: Simulated) -> np.ndarray:
    """Torso above foot, both by their centres of mass: a walk down the chain of hinges, all about the y axis."""
    model = s.model
    angle = s.joint("rooty")

    def drop(offset: np.ndarray) -> np.ndarray:
        return offset[2] * np.cos(angle) - offset[0] * np.sin(angle)

    torso, below = drop(model.body("torso").ipos), np.zeros_like(angle)
    for body, joint in (("pelvis", "waist"), ("thigh", "hip"), ("calf", "knee"), ("foot", "ankle")):
        below = below + drop(model.body(body).pos)
        angle = angle + s.joint(joint)
    return torso - below - drop(model.body("foot").ipos)


def _hopper_stand(s: Simulated) -> np.ndarray:
    return tolerance(_hopper_height(s), (hopper._STAND_HEIGHT, 2)) * _small_control(s)


def _hopper_rising(s: Simulated) -> np.ndarray:
    """Height up to where the reward begins and beyond, an upright torso, and no haste."""
    height = np.clip(_hopper_height(s), -0.5, hopper._STAND_HEIGHT + 0.4)
    return height + 0.5 * np.cos(s.joint("rooty")) - 0.02 * np.square(s.qvel).mean(-1)


def _cheetah_run(s: Simulated) -> np.ndarray:
    forwards, speed = s.sensor("torso_subtreelinvel")[..., 0], cheetah._RUN_SPEED
    return tolerance(forwards, (speed, np.inf), margin=speed, value_at_margin=0, sigmoid="linear")


def _cheetah_upright(s: Simulated) -> np.ndarray:
    """Not on its back, where it still slides but never runs."""
    return np.cos(s.joint("rooty"))


# Finger: two links that flick a spinner; all its observations are sensors.


def _finger_spin(s: Simulated) -> np.ndarray:
    return (s.sensor("hinge_velocity")[..., 0] <= -finger._SPIN_VELOCITY).astype(float)


def _finger_faster(s: Simulated) -> np.ndarray:
    """Up to twice the speed that the reward asks for: it lasts until the next flick."""
    return np.clip(-s.sensor("hinge_velocity")[..., 0] / finger._SPIN_VELOCITY, -1, 2) - 0.5 * _finger_away(s)


def _finger_away(s: Simulated) -> np.ndarray:
    """Distance of the finger's touch sites from the spinner's axis, beyond what a touch needs."""
    distance = np.linalg.norm(s.sensor("touchtop_pos") - s.sensor("spinner"), axis=-1)
    return np.maximum(distance - 0.12, 0)


def _finger_target(s: Simulated) -> np.ndarray:
    """Distance of the spinner's tip from the target's surface."""
    offset = (s.sensor("target") - s.sensor("tip"))[..., [0, 2]]
    return np.linalg.norm(offset, axis=-1) - s.model.site("target").size[0]


def _finger_turn(s: Simulated) -> np.ndarray:
    return (_finger_target(s) <= 0).astype(float)


def _finger_nearer(s: Simulated) -> np.ndarray:
    still = 0.01 * np.abs(s.sensor("hinge_velocity")[..., 0])
    return -_finger_target(s) / 0.1 - 0.5 * _finger_away(s) - still


REWARDS: dict[str, Term] = {
    "ball_in_cup-catch": _ball_in_cup,
    "cartpole-balance": _cartpole,
    "cartpole-balance_sparse": _cartpole_sparse,
    "cartpole-swingup": _cartpole,
    "cartpole-swingup_sparse": _cartpole_sparse,
    "cheetah-run": _cheetah_run,
    "finger-spin": _finger_spin,
    "finger-turn_easy": _finger_turn,
    "finger-turn_hard": _finger_turn,
    "hopper-stand": _hopper_stand,
    "pendulum-swingup": _pendulum,
    "point_mass-easy": _point_mass,
    "reacher-easy": _reacher,
    "reacher-hard": _reacher,
    "walker-stand": _walker_stand,
    "walker-walk": _walker_walk,
}
"""The suite's reward by ``domain-task``."""

SHAPING: dict[str, Term] = {
    "ball_in_cup-catch": _ball_over_cup,
    "cartpole-balance_sparse": _cartpole_nearly,
    "cartpole-swingup_sparse": _cartpole_nearly,
    "cheetah-run": _cheetah_upright,
    "finger-spin": _finger_faster,
    "finger-turn_easy": _finger_nearer,
    "finger-turn_hard": _finger_nearer,
    "hopper-stand": _hopper_rising,
    "pendulum-swingup": _pendulum_energy,
    "point_mass-easy": _point_mass_nearer,
    "reacher-easy": _reacher_nearer,
    "reacher-hard": _reacher_nearer,
}
"""What the planner adds, times the task's ``shaping``."""
