"""``untrigger report``: one HTML file made from run folders."""
