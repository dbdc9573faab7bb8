-- Offsets of the window whose records are lost, which a salvaged journal marks as holes: seen + lost = next_offset - window_start.
ALTER TABLE ledger
    ADD COLUMN IF NOT EXISTS lost UInt64;
