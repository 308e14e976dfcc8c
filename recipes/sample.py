"""`keras-mdm sample`, as a program of this folder."""

from keras_mdm_recipes.sample import main

if __name__ == "__main__":
    main()
