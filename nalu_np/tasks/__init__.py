"""Data: tables read from files. A leaf: nothing here knows of layers or training."""
