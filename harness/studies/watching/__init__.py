"""Programs that run under the observer: their processes read into one recording, judged, and told by call site."""
