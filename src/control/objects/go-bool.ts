/** Whether a label or an annotation says yes, by what Go's strconv.ParseBool takes for true. */
export function isTrue(text: string): boolean {
  return ['1', 't', 'T', 'TRUE', 'true', 'True'].includes(text);
}
