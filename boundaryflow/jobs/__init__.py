"""Work outside of the stage graph: single pictures, text, exports, bulk edits, augmentation, inspection."""
