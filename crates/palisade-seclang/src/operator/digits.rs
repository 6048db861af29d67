//! Numbers with check digits: `@verifyCC`, `@verifyCPF`, `@verifySSN`, `@verifySVNR`.

use super::Found;
use crate::regex::{Allowance, Regex, StepLimit};

/// Looks for candidates by pattern, wherever they begin, and asks the check of each.
pub(super) fn verify(
    regex: &Regex,
    value: &[u8],
    check: fn(&[u8]) -> bool,
    (allowance, found): (&mut Allowance<'_>, &mut Found),
) -> Result<bool, StepLimit> {
    let mut at = 0;
    // Every byte may begin a candidate; the limit keeps a long value from costing its square.
    for _ in 0..1000 {
        if at > value.len() {
            break;
        }
        let Some(groups) = regex.captures_from(value, at, allowance)? else { break };
        let Some((start, end)) = groups[0] else { break };
        if end > start && groups.iter().flatten().any(|(s, e)| check(&value[*s..*e])) {
            found.groups[0] = Some((start, end));
            return Ok(true);
        }
        at = start + 1;
    }
    Ok(false)
}

fn numbers(text: &[u8]) -> Vec<u32> {
    text.iter().filter(|b| b.is_ascii_digit()).map(|b| u32::from(b - b'0')).collect()
}

/// Luhn's check.
pub(super) fn credit_card(text: &[u8]) -> bool {
    let digits = numbers(text);
    if digits.is_empty() {
        return false;
    }
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, d)| if i % 2 == 0 { *d } else { d * 2 - if *d > 4 { 9 } else { 0 } })
        .sum();
    sum.is_multiple_of(10)
}

/// Brazil's taxpayer number.
pub(super) fn cpf(text: &[u8]) -> bool {
    let d = numbers(text);
    if d.len() != 11 || d.iter().all(|x| *x == d[0]) {
        return false;
    }
    let check = |count: u32| {
        let sum: u32 = (0..count).map(|i| d[i as usize] * (count + 1 - i)).sum();
        (sum * 10 % 11) % 10
    };
    check(9) == d[9] && check(10) == d[10]
}

/// The social security number of the United States.
pub(super) fn ssn(text: &[u8]) -> bool {
    let d = numbers(text);
    if d.len() != 9 {
        return false;
    }
    let same = d.windows(2).all(|w| w[0] == w[1]);
    let rising = d.windows(2).all(|w| w[0] + 1 == w[1]);
    let number = |range: &[u32]| range.iter().fold(0, |n, x| n * 10 + x);
    let (area, group, serial) = (number(&d[..3]), number(&d[3..5]), number(&d[5..]));
    !(same || rising || area == 0 || group == 0 || serial == 0 || area >= 740 || area == 666)
}

/// Austria's social insurance number.
pub(super) fn svnr(text: &[u8]) -> bool {
    let d = numbers(text);
    if d.len() != 10 || d.iter().all(|x| *x == d[0]) {
        return false;
    }
    let weights = [3, 7, 9, 0, 5, 8, 4, 2, 1, 6];
    let sum: u32 = d.iter().zip(weights).map(|(x, w)| x * w).sum();
    sum % 11 == d[3]
}
