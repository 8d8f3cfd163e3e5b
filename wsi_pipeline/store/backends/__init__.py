"""HDF5 and Zarr behind one contract."""
