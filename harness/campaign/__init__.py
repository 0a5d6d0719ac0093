"""The hunt: draw, run, judge, make smaller, keep as a seed file, replay."""
