"""What recipes share while they train: settings, losses, progress, and the proof of what was trained."""
