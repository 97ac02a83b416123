"""What a report says of generative adversarial networks: modes, samples, the game; and the page of one."""
