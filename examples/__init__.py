"""The main job of the suite as a program, and the data it runs on."""
