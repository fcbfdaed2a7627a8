"""Stages on a Ray cluster. Nobody else imports Ray, and it is imported only when somebody asks for it."""

from pipeline.cluster.engine import RayEngine

__all__ = ["RayEngine"]
