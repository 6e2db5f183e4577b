"""The parts of curation: sources, filters, duplicates, overlap, rollouts, augmentation, mix."""
