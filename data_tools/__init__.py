"""From images and annotations to instruction rows and preference pairs."""
