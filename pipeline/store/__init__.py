"""The store: the only package that imports lance."""

from pipeline.stage import literal as literal
from pipeline.store.files import folder_bytes as folder_bytes
from pipeline.store.location import Location as Location
from pipeline.store.location import locate as locate
from pipeline.store.snapshot import Snapshot as Snapshot
from pipeline.store.tables import Store as Store
from pipeline.store.tables import write_fragments as write_fragments
