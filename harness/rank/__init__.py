"""One rank's process: forked from the zygote (`zygote`), it runs draws and writes its journal. Judges nothing."""
