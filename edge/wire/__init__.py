"""Speaking: HTTP messages, their fields, and the engines that turn bytes into them."""
