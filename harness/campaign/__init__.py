"""The hunt: draw, run, judge, shrink, keep as a seed file, replay."""
