"""`keras-mdm train-image`, as a program of this folder."""

from keras_mdm_recipes.train_image import main

if __name__ == "__main__":
    main()
