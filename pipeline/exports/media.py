"""What a row shows, from the store: the frames of a view as JPEGs, or the video's file."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import simplejpeg

from pipeline.errors import UserError
from pipeline.exports.common import LeftOut, Sample, Shown, ending, safe_name
from pipeline.framereader import FrameReader
from pipeline.views import load_view

QUALITY = 95
"""Of the JPEGs: higher than the cache's own, since a cached frame may be a JPEG already."""

VIEWS = ("anchor", "importance", "all")


def views_of(sample: Sample, which: str) -> list[Mapping[str, Any]]:
    """The views that are asked for: the anchor, the first that the scores chose, or all.

    Raises:
        LeftOut: the sample has none of them.
    """
    views = sorted(sample["variants"], key=lambda view: int(view["variant"]))
    if which != "all":
        views = [view for view in views if view["kind"] == which][:1]
    if not views:
        raise LeftOut("no views" if which == "all" else f"no {which} view", f"--view {which}")
    return views


class Media:
    """Frames and video files of one export.

    Args:
        reader: of the store's frames; None when the rows show whole videos.
        videos: {video_id: (path, length in seconds)}.
        aside: the folder to write into; `root`: where it will be.
        view: one of VIEWS.
        embeds, links: of the format.
    """

    def __init__(
        self,
        reader: FrameReader | None,
        videos: Mapping[str, tuple[str, float]],
        aside: Path,
        root: Path,
        view: str,
        embeds: bool,
        links: bool,
    ) -> None:
        self._reader, self._videos, self._aside, self._root = reader, videos, aside, root
        self._view, self._embeds, self._links = view, embeds, links

    def of(self, sample: Sample) -> Iterator[Shown]:
        """What each row of a sample shows. Files appear only when all of a sample's are read.

        Raises:
            LeftOut: frames or file are not there, or are no longer those that were chosen from.
        """
        return iter([self._clip(sample)] if self._reader is None else self._frames(self._reader, sample))

    def _clip(self, sample: Sample) -> Shown:
        path, duration = self._videos.get(sample["video_id"], ("", 0.0))
        if not path:
            raise LeftOut("no video", f"the store has no video {sample['video_id']}")
        if not Path(path).is_file():
            raise LeftOut("missing file", f"{path} is not there")
        path = os.path.abspath(path)
        if self._links:
            name = f"videos/{safe_name(sample['video_id'])}{ending(path)}"
            place = self._aside / name
            if not place.is_symlink():
                place.parent.mkdir(exist_ok=True)
                place.symlink_to(path)
            path = name
        return Shown(self._root, path, duration)

    def _frames(self, reader: FrameReader, sample: Sample) -> list[Shown]:
        video = sample["video_id"]
        views = views_of(sample, self._view)
        if video not in reader:
            raise LeftOut("no frames", f"the store has no frames of {video}")
        if reader.fingerprint(video) != sample["frames_fingerprint"]:
            raise LeftOut("frames changed", f"{video} was cached anew after the selection")
        try:
            read = [load_view(reader, video, v["indices"], v["crop"], v["scale"]) for v in views]
        except (ValueError, IndexError, UserError) as error:
            raise LeftOut("damaged frames", str(error)) from error
        path, duration = self._videos.get(video, ("", None))
        shown = []
        for view, seen in zip(views, read, strict=True):
            jpegs = tuple(simplejpeg.encode_jpeg(frame, QUALITY, "RGB", "444") for frame in seen.frames)
            shown.append(
                Shown(
                    self._root,
                    os.path.abspath(path) if path else "",
                    duration,
                    int(view["variant"]),
                    self._view == "all",
                    () if self._embeds else self._files(sample, view, jpegs),
                    tuple(float(time) for time in seen.times),
                    jpegs if self._embeds else (),
                )
            )
        return shown

    def _files(self, sample: Sample, view: Mapping[str, Any], jpegs: tuple[bytes, ...]) -> tuple[str, ...]:
        folder = f"frames/{safe_name(sample['sample_id'])}"
        if self._view == "all":
            folder += f"/view{int(view['variant'])}"
        (self._aside / folder).mkdir(parents=True, exist_ok=True)
        names = tuple(f"{folder}/{place}.jpg" for place in range(len(jpegs)))
        for name, jpeg in zip(names, jpegs, strict=True):
            (self._aside / name).write_bytes(jpeg)
        return names
