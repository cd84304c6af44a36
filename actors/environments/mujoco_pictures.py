"""Pictures of MuJoCo simulations, drawn off screen, and how `mujoco` is imported by every adapter.

OpenGL is loaded by the first picture and not before: most actors never draw. So MuJoCo is imported with its own
renderer switched off (`without_renderer`), whatever ``MUJOCO_GL`` says, and a machine without OpenGL can do all else.
``MUJOCO_GL`` chooses the library when a picture is wanted: egl (the default), osmesa or glfw.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from actors.environments.failures import LibraryMissing

OPENGL_PACKAGES = "libegl1 libegl-mesa0 libgl1-mesa-dri"
"""Debian's packages of a software OpenGL with EGL (Mesa)."""


@contextlib.contextmanager
def without_renderer() -> Iterator[None]:
    """Keep libraries from loading OpenGL at their import: 55 MB and half a second an actor."""
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = "disable"
    try:
        yield
    finally:
        del os.environ["MUJOCO_GL"]
        if before is not None:
            os.environ["MUJOCO_GL"] = before


with without_renderer():
    import mujoco


class NoRenderer(LibraryMissing):
    """No OpenGL library can draw here; the message has the packages to install."""


class MujocoPictures:
    """Draws states of one model at a fixed size: uint8 [height, width, 3].

    Args:
        model: the ``MjModel``; copies of it that differ in sizes and colours only can be drawn too.
        height, width: pixels.
        camera: number or name of a camera of the model; where the model has none, a free one.
        effects: shadows, reflections and multisampling. In software they take 9 tenths of the time, so they are off
            unless asked for.

    Raises:
        NoRenderer: no OpenGL library can draw here.
        ValueError: there is no such camera.
    """

    def __init__(self, model: Any, height: int, width: int, camera: int | str = 0, effects: bool = False) -> None:
        self._picture = np.empty((height, width, 3), np.uint8)
        self._camera = _camera(model, camera)
        self._closed = False
        library = os.environ.get("MUJOCO_GL", "").lower().strip() or "egl"
        # The quality is read when the context is made; the model is left as it was.
        quality, visual = model.vis.quality, model.vis.global_
        before = quality.shadowsize, quality.offsamples, visual.offwidth, visual.offheight
        if not effects:
            quality.shadowsize = quality.offsamples = 0
        visual.offwidth, visual.offheight = width, height
        try:
            self._gl = importlib.import_module(f"mujoco.{library}").GLContext(width, height)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        except Exception as error:  # PyOpenGL and the drivers raise whatever they like
            raise NoRenderer(
                f"no OpenGL context by MUJOCO_GL={library} ({type(error).__name__}: {error}); install a software one "
                f"(Debian: apt-get install {OPENGL_PACKAGES}) or set MUJOCO_GL to egl, osmesa or glfw"
            ) from error
        finally:
            quality.shadowsize, quality.offsamples, visual.offwidth, visual.offheight = before
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model=model, maxgeom=2000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = effects
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = effects
        self._option = mujoco.MjvOption()

    def draw(self, model: Any, data: Any) -> np.ndarray:
        """The state ``data`` (``MjData``) of ``model``; the array is the caller's own."""
        height, width, _ = self._picture.shape
        area = mujoco.MjrRect(0, 0, width, height)
        every_category = mujoco.mjtCatBit.mjCAT_ALL.value
        self._gl.make_current()
        for terrain in range(model.nhfield):  # some tasks make a new one at each reset
            mujoco.mjr_uploadHField(model, self._context, terrain)
        mujoco.mjv_updateScene(model, data, self._option, None, self._camera, every_category, self._scene)
        mujoco.mjr_render(area, self._scene, self._context)
        mujoco.mjr_readPixels(self._picture, None, area, self._context)
        return self._picture[::-1].copy()  # OpenGL's rows go upwards

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a picture."""
        return self._picture.shape  # type: ignore[return-value]

    def close(self) -> None:
        """Free the OpenGL context; harmless when repeated."""
        if self._closed:
            return
        self._closed = True
        self._gl.make_current()
        self._context.free()
        self._gl.free()


def _camera(model: Any, camera: int | str) -> Any:
    chosen = mujoco.MjvCamera()
    names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_CAMERA, number) for number in range(model.ncam)]
    if isinstance(camera, str):
        if camera not in names:
            raise ValueError(f"there is no camera {camera!r}; there are: {', '.join(filter(None, names)) or 'none'}")
        camera = names.index(camera)
    if model.ncam:
        if not 0 <= camera < model.ncam:
            raise ValueError(f"there is no camera {camera}; there are {model.ncam}, counted from 0")
        chosen.type = mujoco.mjtCamera.mjCAMERA_FIXED
        chosen.fixedcamid = camera
    else:
        mujoco.mjv_defaultFreeCamera(model, chosen)
    return chosen
