"""An earlier output (--previous), which one actor on the driver's machine holds, and all others ask."""

from typing import Any

from faceauth.images import EncodedImage, Limits, Source
from faceauth.output import Previous, picture_hash
from faceauth.verdict import Verdict


class Earlier:
    """Gives the verdict on a picture that the output holds."""

    def __init__(self, previous: Previous) -> None:
        self._find = previous.finder()

    def find(self, picture: int) -> Verdict | None:
        """The verdict on the picture of that hash (`picture_hash`), or None."""
        return self._find(picture)


def held(previous: Previous) -> Any:
    """An `Earlier` in an actor on this machine, which has the file; it lives as long as the handle, returned."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(Earlier)
    return actor.options(num_cpus=0, scheduling_strategy=here).remote(previous)


class Known:
    """The verdict on a picture that an earlier output holds, None on others."""

    def __init__(self, earlier: Any, limits: Limits) -> None:
        """`earlier` is what `held` returned, or None, where nothing is known."""
        self._earlier, self._limits = earlier, limits

    def __call__(self, source: Source) -> Verdict | None:
        """The verdict, under the name that the picture had then."""
        import ray

        if self._earlier is None:
            return None
        given: Any = source.data if isinstance(source, EncodedImage) else source
        picture = picture_hash(given, self._limits.max_bytes)
        return None if picture is None else ray.get(self._earlier.find.remote(picture))
