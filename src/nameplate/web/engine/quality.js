/** Whether a photo is too small, too dark or too blurred: `images.quality` of Nameplate, with its constants. */

import { preprocess } from "./resize.js";

/** The flaws of a photo, cropped to its car, whose model input is `input`. */
export function flaws(photo, input, size, rules) {
  const same = ["height", "width", "fit", "interpolation"].every((key) => size[key] === rules.VIEW[key]);
  const { light, sharpness } = measured(same ? input : preprocess(photo, rules.VIEW), rules);
  const found = { small: Math.min(photo.height, photo.width) < rules.SMALL, dark: light < rules.DARK, blurred: sharpness < rules.BLURRED };
  return Object.keys(found).filter((flaw) => found[flaw]);
}

/** A quantile of the green channel, 0–1, and the energy of its Laplacian divided by its variance. */
function measured({ height, width, data }, { ROWS, COLUMNS, BRIGHT_RANK, FLAT }) {
  const green = (row, column) => data[3 * (row * width + column) + 1];
  const bright = [];
  let [energy, sum, squares, count] = [0, 0, 0, 0];
  for (let row = 1; row < height; row += ROWS) {
    for (let column = 0; column < width; column += COLUMNS) bright.push(green(row, column));
    for (let column = 1; column < width - 1; column++) {
      const value = green(row, column);
      energy += (green(row - 1, column) + green(row + 1, column) + green(row, column - 1) + green(row, column + 1) - 4 * value) ** 2;
      sum += value;
      squares += value ** 2;
      count += 1;
    }
  }
  bright.sort((one, other) => one - other);
  return { light: bright[BRIGHT_RANK] / 255, sharpness: energy / Math.max(squares - sum ** 2 / count, FLAT * count) };
}
