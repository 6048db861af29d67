// A real page's form, and the same form on a page of another site.
//
//   node csrf.mjs GATEWAY-URL OTHER-SITE-URL
//
// GATEWAY-URL shows a page that logs its visitor in with a cookie and has a form; OTHER-SITE-URL shows pages that post to
// the gateway in several ways. Prints what each of them was answered.
import { report, withPage } from './browser.mjs';

const [gateway, other] = process.argv.slice(2);
const TIMEOUT = 60_000;

/** Opens a page, presses its button, and gives the answer of the form's target. */
async function press(page, url, button) {
  await page.goto(url, { waitUntil: 'load', timeout: TIMEOUT });
  const [answer] = await Promise.all([
    page.waitForResponse((answer) => answer.url().startsWith(`${gateway}/transfer`), { timeout: TIMEOUT }),
    page.locator(button).click(),
  ]);
  const request = answer.request();
  const headers = await request.allHeaders();
  return {
    status: answer.status(),
    code: /csrf\.[a-z_]+/.exec(await answer.text().catch(() => ''))?.[0] ?? null,
    cookie: headers.cookie ?? '',
    origin: headers.origin ?? null,
  };
}

report(
  await withPage(
    () => undefined,
    async (page) => {
      const seen = { own: await press(page, `${gateway}/`, '#own') };
      seen.multipart = await press(page, `${gateway}/`, '#multipart');
      seen.form = await press(page, `${other}/`, '#form');
      seen.plain = await press(page, `${other}/`, '#plain');
      seen.no_referrer = await press(page, `${other}/quiet`, '#form');
      seen.sandbox = await press(page, `${other}/sandboxed`, '#form');
      // Whoever was attacked is still logged in, and the own page still works.
      seen.again = await press(page, `${gateway}/`, '#own');
      return seen;
    },
  ),
);
