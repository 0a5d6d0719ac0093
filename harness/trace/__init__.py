"""What was seen, as frozen data: the events of each rank, and the draw they make up."""
