"""The admin socket, what it can be asked, and how the processes of a node ask each other."""
