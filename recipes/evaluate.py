"""`keras-mdm evaluate`, as a program of this folder."""

from keras_mdm_recipes.evaluate import main

if __name__ == "__main__":
    main()
