"""What several trainers share: the loop, teachers, corpora, the export."""
