"""`keras-mdm train-text`, as a program of this folder."""

from keras_mdm_recipes.train_text_to_image import main

if __name__ == "__main__":
    main()
