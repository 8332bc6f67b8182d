/* Validation of one setting, with the service's rules, so that a mistake shows at once. */

const INTEGER = /^[+-]?[0-9]{1,18}$/;
const DECIMAL = /^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$/;
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/;

/** The bounds of a number in words; empty if it has none. Digits without separators, as they are typed. */
export function bounds(field) {
  const above = field.exclusiveMinimum ?? null;
  const least = field.minimum ?? null;
  const most = field.maximum ?? null;
  if (above !== null) return most === null ? `above ${above}` : `above ${above} and at most ${most}`;
  if (least !== null) return most === null ? `${least} or more` : `from ${least} to ${most}`;
  return most === null ? '' : `at most ${most}`;
}

/** One sentence about what is wrong with the text, or null. */
export function problem(field, text) {
  const value = text.replaceAll('\r\n', '\n').trim();
  if (!value) {
    if (!field.required) return null;
    return field.choices?.length && !field.other ? `Choose a value for ${field.title}.` : `${field.title} is missing. Type a value.`;
  }
  if (value.includes('{{')) return `${field.title} must not contain “{{”.`;
  if (CONTROL.test(value)) return `${field.title} has a control character. Type it again.`;
  if (field.type === 'integer' || field.type === 'number') return numberProblem(field, value);
  if (field.choices?.length && !field.other && value !== field.default && !field.choices.some((choice) => choice.value === value)) {
    return `${field.title} must be one of the choices.`;
  }
  if (['location', 'key', 'set-id', 'node-pool'].includes(field.type) && value.includes('\n')) {
    return `${field.title} takes one line.`;
  }
  return null;
}

function numberProblem(field, value) {
  const whole = field.type === 'integer';
  const parsed = Number(value);
  const fits =
    (whole ? INTEGER : DECIMAL).test(value) &&
    Number.isFinite(parsed) &&
    !(typeof field.exclusiveMinimum === 'number' && parsed <= field.exclusiveMinimum) &&
    !(typeof field.minimum === 'number' && parsed < field.minimum) &&
    !(typeof field.maximum === 'number' && parsed > field.maximum);
  if (fits) return null;
  const shown = value.length > 40 ? `${value.slice(0, 39)}…` : value;
  const wanted = [whole ? 'a whole number' : 'a number', bounds(field)].join(' ').trim();
  const comma = !whole && /^[0-9]+,[0-9]+$/.test(value) ? ' Write a dot instead of the comma.' : '';
  return `${field.title} must be ${wanted}, not “${shown}”.${comma}`;
}
