"""The recipes: programs that train, draw and judge, behind `keras-mdm NAME`."""
