"""What runs on the other side: the coordinator's code, shut into the data folder and cut off from the network."""
