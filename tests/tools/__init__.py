"""What tests share: systems under test, processes, machines and scenes that several need."""
