"""The method: drawing episodes, the network, its training and its evaluation."""
