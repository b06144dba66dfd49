"""What a rank keeps on disk to go on later: files, sets of them, and which set is whole."""
