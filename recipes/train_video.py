"""`keras-mdm train-video`, as a program of this folder."""

from keras_mdm_recipes.train_video import main

if __name__ == "__main__":
    main()
